"""What a person submits; read from top to bottom, this is the system.

     source media + labels
            |  prepare      one adapter per dataset                                  -> MANIFEST
            |  models       mirror the pretrained weights into the store
            v
         manifest
            |  encode       Ray Data: decode -> transcribe -> encode -> publish      -> FEATURES
            v
     features/<encoder>
            |  train        Ray Train: one net, all folds and seeds                  -> PREDICTIONS
            |  tune         Ray Tune: nets, inputs, hyper-parameters, then late fusion
            v
         runs/<run>
            |  ensemble     late fusion and calibration on rows nobody trained on    -> bundle
            v
          bundle
            |  evaluate     the one job that loads test rows
            |  score        raw clips or features                                    -> SCORES
            v
          report            one HTML file and its pictures

Keys are file names; the sentence is the job's one-line help. Nothing is imported until it is chosen.
"""

JOBS: dict[str, str] = {
    "annotate": "Write the verdict into the picture: a film with its label and a bar for each class.",
    "benchmark": "Measure encoding against decode and models alone; say what limits.",
    "compare": "Put runs and bundles beside each other: paired differences over people.",
    "demo": "All of it in order on a synthetic corpus, in minutes: start here.",
    "encode": "Turn the clips of a manifest into features with pretrained encoders.",
    "ensemble": "Fuse the predictions of several runs into one calibrated verdict: a bundle.",
    "evaluate": "Judge a run or bundle on test rows, the only job that opens them.",
    "features": "Import ready-made features, or export a dataset's features for other tools.",
    "models": "Mirror the pretrained weights into the store; after it nothing needs the network.",
    "prepare": "Turn a source of clips and labels into a manifest, cut into units of work.",
    "report": "One HTML file with pictures: results, baselines, intervals, worst errors.",
    "score": "Score clips with a bundle: a dataset, or any files at all.",
    "submit": "Run any job on a Ray cluster: the same command line, after --.",
    "train": "One fusion net by Ray Train: all folds and seeds, early stopping, predictions.",
    "tune": "Search nets, inputs and hyper-parameters by Ray Tune, then their late fusion.",
}

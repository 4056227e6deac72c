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
            |  ask          a large model behind a server, as one more run
            |  tune         Ray Tune: nets, inputs, hyper-parameters, then late fusion
            v
         runs/<run>
            |  ensemble     late fusion and calibration on held-out rows             -> bundle
            v
          bundle
            |  evaluate     the one job that loads test rows
            |  score        raw clips or features                                    -> SCORES
            |  explain      what each modality and member adds to the answers
            v
          report            one HTML file and its pictures

    verify                  reads all of the above and says whether it is whole

Keys are file names; the sentence is the job's one-line help. Nothing is imported until it is chosen.

Glossary, in the order in which a reader meets the terms:

    root            folder or URI of one dataset; everything made from the dataset lies under it
    clip            what gets one prediction: a media file, or a segment of one, with its text
    task            what is predicted: a classification, a multi-label classification or a regression
    group           clips that no split or fold separates: of one speaker, dialogue, film or own choice
    split           train, valid or test; only `evaluate` reads test
    fold            one of K group-disjoint parts; each is held out once
    unit            some clips that are decoded, encoded and published together; the unit of work
    modality        text, audio or video; an absent one is a mask, not zeros
    encoder         a pretrained model or fixed transformation that turns a clip into steps
    descriptor      what is known of an encoder with its options before any weights are loaded
    transcriber     a speech recogniser; its transcript is the text of clips that have none
    view            an augmented copy of a training clip, encoded beside the original
    stream          the Ray Data pipeline: decode, encode, publish
    pass            one run of the stream over the clips, where the encoders do not fit together
    autotune        a few clips are timed first, and the stages of the stream are sized by that
    step            one vector of an encoded clip, with its start and end time
    valid           of a step: it carries information (a face was found, somebody speaks)
    feature table   the rows of one encoder: one a clip, as steps x numbers, with a status
    fingerprint     hash of all that shapes the values of a table: weights, options, preprocessing
    key             hash of what an encoder reads of a unit; another key is encoded again
    feed            hands batches of clips, or of dialogues, to a net; one function builds every feed
    run             one configuration of a net, trained on all folds and seeds; a folder of nets
    part            one net of a run: one fold and seed, or the refit on all rows
    card            what is needed to build and feed a trained net again, beside its weights
    held-out rows   rows that a net neither trained on nor chose its epoch by (role oof), or valid
    member          a run, or predictions made elsewhere, that an ensemble fuses
    late rule       how the predictions of the members become one
    calibration     makes probabilities as frequent as they claim: temperature, bias or vector scaling
    candidate       a rule with its options, calibrations and members, to be compared with others
    cross-fitting   a candidate is fitted on some folds and evaluated on the others, in turn
    bundle          all that scores a raw clip: encoders, nets, rule, calibration
    shipped         of a candidate: it was chosen, fitted on all held-out rows, and is in the bundle
    look            one reading of the test split by `evaluate`; each is recorded
"""

JOBS: dict[str, str] = {
    "annotate": "Caption a video with its predicted label and a bar for each class.",
    "ask": "Ask a large model behind a server about clips: one more member of an ensemble.",
    "benchmark": "Measure the rate of encoding and of its parts alone; print which stage limits it.",
    "bundle": "Register a bundle in MLflow, promote it, or export it for a model hub.",
    "compare": "Compare runs and bundles: paired differences, resampled over groups.",
    "demo": "Run all jobs in order on a synthetic corpus, in minutes: start here.",
    "encode": "Turn the clips of a manifest into features with pretrained encoders.",
    "ensemble": "Fuse the predictions of several runs into one calibrated prediction: a bundle.",
    "evaluate": "Evaluate a run or bundle on the test split; no other job opens it.",
    "explain": "Say what each modality and member adds to the answers of a bundle.",
    "features": "Import ready-made features, or export a dataset's features for other tools.",
    "models": "Mirror the pretrained weights into the store; after it nothing needs the network.",
    "prepare": "Turn a source of clips and labels into a manifest, cut into units of work.",
    "report": "Write one HTML file with pictures: results, baselines, intervals, worst errors.",
    "reproduce": "Make a published table again, by its authors' protocol and by a clean one.",
    "score": "Score clips with a bundle: a dataset, or any files at all.",
    "serve": "Serve a bundle: a page to speak, film, upload or type to, and POST /predict.",
    "submit": "Run any job on a Ray cluster: the same command line, after --.",
    "train": "Train one fusion net with Ray Train: all folds and seeds, early stopping, predictions.",
    "tune": "Search nets, inputs and hyper-parameters with Ray Tune, then fuse the best.",
    "verify": "Check that everything under a root is whole; clear what killed jobs left behind.",
}

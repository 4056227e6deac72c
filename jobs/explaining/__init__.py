"""Why a bundle answers as it does: what each modality and each member adds to an answer."""

"""The acoustic descriptors of eGeMAPS v02, one family a file, in NumPy.

`frames` cuts and transforms, `spectral`, `pitch`, `periods`, `formants` and `harmonics` hold the 25
descriptors, `functionals` the 88 statistics, `extended` puts them together. Definitions: Eyben et al.,
IEEE Trans. Affective Computing 2016, https://doi.org/10.1109/TAFFC.2015.2457417; parameters are those
that the configuration of eGeMAPS v02 states; conventions the paper leaves open were found from outputs.
"""

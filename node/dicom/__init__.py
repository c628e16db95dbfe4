"""DICOM: examining files in sandboxed processes, reading media, writing DICOMDIRs.

pydicom is imported only here.
"""

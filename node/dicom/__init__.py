"""DICOM: examining files in a sandboxed process, reading media, exporting. pydicom only here."""

"""CT images in: DICOM, phantoms, Arrow files, batches."""

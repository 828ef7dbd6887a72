"""Full-dose CT from folders of DICOM: headers, files, series, patients."""

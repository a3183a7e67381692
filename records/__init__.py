"""What leaves the facility of a session: the treatment record as DICOM, and its comparison with the plan."""

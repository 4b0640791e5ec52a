"""Ways around faults of libraries: one file for each, named after its report, with a test that fails when it can go."""

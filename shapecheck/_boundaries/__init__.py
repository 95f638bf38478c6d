"""What a contract is put on: functions, generators, classes, records."""

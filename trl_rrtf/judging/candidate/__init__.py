"""The processes of a candidate. None of them ever sees a test, so nothing here imports anything but `wire`."""

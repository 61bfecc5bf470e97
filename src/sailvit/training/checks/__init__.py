"""What would stop a run or make it do nothing, found before the first step."""

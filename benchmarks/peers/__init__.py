"""What the comparison with other trainers is made of: one data set, one model, and a contender per trainer."""

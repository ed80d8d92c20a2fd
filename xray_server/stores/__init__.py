"""Places that keep runs, stages and candidates; ``base`` says what is asked of them."""

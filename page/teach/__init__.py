"""The lesson: a case set, guesses and votes, and the score of human, teacher and student."""

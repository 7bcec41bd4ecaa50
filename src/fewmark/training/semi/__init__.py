"""TS3: students write pseudo labels, a teacher judges them, the best join the next round's training set."""

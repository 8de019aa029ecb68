"""Lightning callbacks: run folder, exact resume, loss guard, compiling, monitor."""

"""Events and states in words: sentences for two readers, sources, and what a statement rests on."""

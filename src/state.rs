//! What outlives a configuration snapshot: counters, health, open files. Carried over by a reload.

//! A session on a connection in memory: how answers are framed, what is said of the connection, what comes back.

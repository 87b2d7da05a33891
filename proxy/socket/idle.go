package socket

// An IdleConn is a connection that may be in an IdleSet: a pointer.
type IdleConn interface {
	Watch() *Watch
	// Resume serves the connection again, in a goroutine of its own. It contains its panics.
	Resume()
}

// A Watch is what an IdleSet has to know of a connection.
type Watch struct {
	FD      int32 // valid while the connection is open
	watched bool  // epoll has the descriptor
}

package socket

// MaxPipes returns how many pipes bodies and tunnels may have at a time in a process with that many
// descriptors, of which each takes two. The bytes of others are copied: connections need the
// descriptors more.
func MaxPipes(descriptors uint64) int { return int(max(min(descriptors, 1<<21)/64, 1)) }

package proxy

import (
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"sluice/proxy/socket"
	"sluice/route/places"
)

// admission limits the client connections, in total and per address block. It is
// safe for concurrent use.
type admission struct {
	mu sync.Mutex
	// mu guards the fields below.
	limit           int
	perAddressLimit int
	trusted         []netip.Prefix // exempt from perAddressLimit
	open            int
	perBlock        map[places.Block]int
}

// configure sets the limits for new connections.
func (a *admission) configure(limits Limits, trusted []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit, a.perAddressLimit, a.trusted = limits.Connections, limits.ConnectionsPerAddress, trusted
}

// admit reports whether a connection from address, which is zero for a unix socket, is accepted. If
// so, the caller must call leave when the connection ends. proxy: it is not the address of a
// client.
func (a *admission) admit(address netip.Addr, proxy bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.admitLocked(address, proxy)
}

// admits reports whether admit would accept a connection from address now.
func (a *admission) admits(address netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hasRoomLocked(address, false)
}

// move reports whether the connection of a proxy that was admitted is accepted as one of its
// client. If not, it is the proxy's as before.
func (a *admission) move(proxy, client netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaveLocked(proxy)
	if a.admitLocked(client, false) {
		return true
	}
	a.enterLocked(places.BlockOf(proxy))
	return false
}

func (a *admission) admitLocked(address netip.Addr, proxy bool) bool {
	if !a.hasRoomLocked(address, proxy) {
		return false
	}
	a.enterLocked(places.BlockOf(address))
	return true
}

func (a *admission) hasRoomLocked(address netip.Addr, proxy bool) bool {
	block := places.BlockOf(address)
	return a.open < a.limit && (proxy || block == places.Many || a.perBlock[block] < a.perAddressLimit || contains(a.trusted, address))
}

func (a *admission) enterLocked(block places.Block) {
	a.open++
	a.perBlock[block]++
}

func (a *admission) leave(address netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaveLocked(address)
}

func (a *admission) leaveLocked(address netip.Addr) {
	block := places.BlockOf(address)
	a.open--
	if a.perBlock[block]--; a.perBlock[block] == 0 {
		delete(a.perBlock, block)
	}
}

// contains reports whether address, which is not IPv4-mapped, is in one of the networks, which are
// [route.Unmapped]. The zero prefix has the zero address: the clients of unix sockets.
func contains(prefixes []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return p.Contains(address) || !p.IsValid() && !address.IsValid()
	})
}

// HalfOfDescriptors returns a limit for client connections: half of the file descriptors of the
// process, less a reserve, as large as the pipes need it. Connections to peers use the others.
func HalfOfDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<21 {
		return 1 << 20
	}
	return max(int(limit.Cur)/2-64-socket.MaxPipes(limit.Cur), 16)
}

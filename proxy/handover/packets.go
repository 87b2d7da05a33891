package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/cloudflare/tableflip"

	"sluice/proxy/packets"
)

// packetsName begins the names of the new process's ends of the pairs through which it gets UDP
// sockets.
const packetsName = "packets "

// packetSocket is a UDP socket.
type packetSocket struct {
	*packets.Socket
	key     string // see keyOf
	systemd string // the name that the socket has there; empty: systemd has not opened it
}

// text returns what follows packetsName in the name of an inherited file.
func (s packetSocket) text() string { return s.systemd + "\n" + s.key }

// ListenPacket is Listen for a UDP socket. It returns the old process's, or a new one. When a new
// process serves, that reads the socket, and passes the packets of this process's connections to
// it.
func (h *Handover) ListenPacket(name, address string) (*packets.Socket, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.mayOpen(); err != nil {
		return nil, err
	}
	key := keyOf(name, address)
	s, ok := h.inheritedPackets[key]
	if !ok {
		var err error
		if s, err = h.openPacketSocket(name, address); err != nil {
			return nil, err
		}
		s.key = key
	}
	delete(h.inheritedPackets, key)
	h.packets = append(h.packets, s)
	return s.Socket, nil
}

// openPacketSocket returns systemd's UDP socket for a listener, or a new one.
func (h *Handover) openPacketSocket(name, address string) (s packetSocket, err error) {
	udp, err := h.systemd.TakePacketSocket(name, address)
	if err != nil {
		return s, err
	}
	if udp != nil {
		s.systemd = name
	} else {
		var config net.ListenConfig
		conn, err := config.ListenPacket(context.Background(), "udp", address)
		if err != nil {
			return s, err
		}
		udp = conn.(*net.UDPConn)
	}
	if s.Socket, err = packets.New(udp); err != nil {
		udp.Close()
	}
	return s, err
}

// inheritPackets takes over a UDP socket of the old process. The caller holds mu.
func (h *Handover) inheritPackets(text string, file *os.File) error {
	s, err := packets.Inherit(file)
	if s == nil || err != nil {
		return err
	}
	name, key, _ := strings.Cut(text, "\n")
	h.inheritedPackets[key] = packetSocket{s, key, name}
	return nil
}

// ReleasePacket closes a socket of ListenPacket, which nobody may read any more. Its address is
// free, unless another process has it. A socket of systemd stays for another listener.
func (h *Handover) ReleasePacket(s *packets.Socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.packets, func(of packetSocket) bool { return of.Socket == s })
	if i < 0 {
		return // it was released
	}
	h.closePacketSocket(h.packets[i])
	h.packets = slices.Delete(h.packets, i, i+1)
}

// closePacketSocket closes a UDP socket, or leaves it to systemd. The caller holds mu.
func (h *Handover) closePacketSocket(s packetSocket) {
	udp := s.Detach()
	if s.systemd != "" {
		h.systemd.PutBackPacketSocket(s.systemd, udp)
	} else {
		udp.Close()
	}
}

// closeInheritedPackets closes the UDP sockets that this process does not use: the old one reads
// them again until its connections have ended. The caller holds mu.
func (h *Handover) closeInheritedPackets() {
	for key, s := range h.inheritedPackets {
		h.closePacketSocket(s)
		delete(h.inheritedPackets, key)
	}
}

// offers are the UDP sockets that a new process gets.
type offers []*packets.Offer

// offerPackets adds the UDP sockets to the files that a new process inherits. fds gets pairs, in
// which they wait: it keeps duplicates of its own sockets, and with a duplicate of a UDP socket its
// address would stay in use after its release.
func (h *Handover) offerPackets(fds *tableflip.Fds) (all offers, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.packets {
		err = errors.Join(err, func() error {
			own, other, err := socketPair(packetsName + s.key)
			if err != nil {
				return err
			}
			offer, err := s.Offer(own, other)
			if err != nil {
				return err
			}
			all = append(all, offer)
			return fds.AddFile(packetsName+s.text(), other)
		}())
	}
	if err != nil {
		all.withdraw()
		return nil, fmt.Errorf("hand over UDP sockets: %w", err)
	}
	return all, nil
}

// accepted makes the new process read the sockets.
func (all offers) accepted() {
	for _, o := range all {
		o.Accepted()
	}
}

func (all offers) withdraw() {
	for _, o := range all {
		o.Withdraw()
	}
}

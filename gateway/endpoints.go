package gateway

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"time"

	"sluice/proxy/http3"
	"sluice/proxy/packets"
)

// endpointOf returns the UDP socket of a listener that has one in place of a TCP socket; else nil.
func endpointOf(l *listener) *http3.Endpoint {
	e, _ := l.Listener.(*http3.Endpoint)
	return e
}

// openEndpoints returns the listeners of UDP sockets for those of all with HTTP/3, and tells these of
// them. It reuses unchanged ones of have, and the sockets of changed ones.
func (ls *listeners) openEndpoints(all, have []*listener) (endpoints []*listener, err error) {
	for _, of := range all {
		if of == nil || !of.config.HTTP3 {
			continue
		}
		address := addressOfEndpoint(of)
		n := slices.IndexFunc(have, func(l *listener) bool {
			return endpointOf(l) != nil && l.address == address
		})
		if n >= 0 && have[n].tls == of.tls && reflect.DeepEqual(have[n].config, of.config) {
			endpoints = append(endpoints, have[n])
			continue
		}
		l := &listener{config: of.config, tls: of.tls, address: address}
		if n >= 0 {
			l.Listener = have[n].Listener
		} else if e, bindErr := ls.bindEndpoint(of.config.Name, address); bindErr == nil {
			l.Listener = e
		} else {
			err = errors.Join(err, fmt.Errorf("listener %q: UDP, for http3: %w", of.config.Name, ls.explain(of.config.Address, bindErr)))
			continue
		}
		of.endpoint, l.endpoint = endpointOf(l), endpointOf(l)
		endpoints = append(endpoints, l)
	}
	return endpoints, err
}

// addressOfEndpoint returns the address of the UDP socket beside a listener: the configured one, with
// the port that the listener has. So the next process asks for the same.
func addressOfEndpoint(l *listener) string {
	host, _, _ := net.SplitHostPort(l.config.Address.Value.Address)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort(host, port)
}

// bindEndpoint returns the endpoint of an address. One that was removed has its socket until its
// connections have ended.
func (ls *listeners) bindEndpoint(name, address string) (*http3.Endpoint, error) {
	if e := ls.ending[address]; e != nil {
		delete(ls.ending, address)
		if e.Reopen() {
			return e, nil
		}
	}
	socket, err := ls.listenPacket(name, address)
	if err != nil {
		return nil, err
	}
	return http3.NewEndpoint(socket, func() { ls.releasePacket(socket) }), nil
}

// releaseEndpoint ends an endpoint once its connections have ended.
func (ls *listeners) releaseEndpoint(l *listener) {
	e := endpointOf(l)
	if e.Close() == nil {
		ls.ending[l.address] = e
	}
}

// openPacket is the default of Options.ListenPacket.
func openPacket(_, address string) (*packets.Socket, error) {
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	socket, err := packets.New(udp)
	if err != nil {
		udp.Close()
	}
	return socket, err
}

// altSvcAge is how long clients may remember that a listener serves HTTP/3 (RFC 7838, section 3.1).
// A client that remembers it for longer than it is so has to wait for a timeout first.
const altSvcAge = time.Hour

// altSvc returns what says the field Alt-Svc of a listener's responses; nil: they have none of its.
func (l *listener) altSvc() func() string {
	switch {
	case l.endpoint != nil:
		port := l.config.HTTP3Port
		if port == 0 {
			_, text, _ := net.SplitHostPort(l.Addr().String())
			port, _ = strconv.Atoi(text)
		}
		told := fmt.Sprintf(`h3=":%d"; ma=%.0f`, port, altSvcAge.Seconds())
		return func() string {
			if l.endpoint.IsServing() {
				return told
			}
			return ""
		}
	case time.Now().Before(l.clearUntil):
		return func() string {
			if time.Now().Before(l.clearUntil) {
				return "clear"
			}
			return ""
		}
	}
	return nil
}

// clearAfter makes l tell clients to forget the HTTP/3 of the listener before it.
func (l *listener) clearAfter(before *listener) {
	switch {
	case l.config.HTTP3 || l.tls == nil:
	case before.endpoint != nil:
		l.clearUntil = time.Now().Add(altSvcAge)
	default:
		l.clearUntil = before.clearUntil
	}
}

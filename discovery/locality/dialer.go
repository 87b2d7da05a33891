package locality

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Control decides whether a connection to a resolved address may be opened, by who has named the
// address. It is a net.Dialer.ControlContext. There are three: ByOperator, Machine.ByOthers, and
// that of a peer.
type Control = func(ctx context.Context, network, address string, c syscall.RawConn) error

// NewDialer returns a dialer for addresses that control permits; nil: none. timeout 0: none.
// It is the only constructor of dialers: test/structure finds others.
func NewDialer(control Control, timeout time.Duration) net.Dialer {
	if control == nil {
		control = byNobody
	}
	return net.Dialer{Timeout: timeout, ControlContext: control}
}

func byNobody(context.Context, string, string, syscall.RawConn) error {
	return errors.New("BUG: it is not known who has named the address")
}

// ByOperator permits every address: the configuration file, a flag or the environment names it.
func ByOperator(context.Context, string, string, syscall.RawConn) error { return nil }

// ByOthers permits the addresses that MayConnect does: a document, a registration, an answer or a
// certificate names them. It permits no unix socket. allowLocal is discovery.allow_local now.
func (m *Machine) ByOthers(allowLocal func() bool) Control {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return m.MayConnect(to, Origin{Trusted: allowLocal()})
	}
}

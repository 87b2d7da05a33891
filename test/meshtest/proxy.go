package meshtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"sluice/observe/wake"
	"sluice/test/consultest"
	"sluice/test/subprocess"
)

// proxyPatience is how long a built-in proxy has to listen before it is started anew. It usually
// takes 100 ms.
const proxyPatience = 10 * time.Second

var errDeaf = errors.New("the proxy does not listen")

// StartProxy runs "consul connect proxy" with options.Args as further arguments, and returns when
// it accepts connections at address. The caller stops the process returned.
//
// A proxy that does not listen is started anew: if it gets its certificate before it begins to wait
// for it, as on a busy machine, it waits forever (Consul's connect/proxy/proxy.go receives from
// ReadyWait, which returns nil then).
func StartProxy(ctx context.Context, address string, options subprocess.Options) (*subprocess.Process, error) {
	binary, err := consultest.Binary(ctx, nil)
	if err != nil {
		return nil, err
	}
	options.Program, options.Args = binary, append([]string{"connect", "proxy"}, options.Args...)
	for {
		process, err := subprocess.Start(options)
		if err != nil {
			return nil, err
		}
		err = awaitProxy(ctx, address, process)
		if err == nil {
			return process, nil
		}
		if stopErr := process.Stop(); stopErr != nil || !errors.Is(err, errDeaf) {
			return nil, errors.Join(err, stopErr)
		}
	}
}

// awaitProxy waits until process accepts connections at address, or for proxyPatience (errDeaf).
func awaitProxy(ctx context.Context, address string, process *subprocess.Process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, proxyPatience, errDeaf)
	defer cancel()
	return wake.Repeat(ctx, consultest.Poll, func() (listens bool, err error) {
		if wake.Closed(process.Exited()) {
			return false, fmt.Errorf("the proxy at %s has ended: %w", address, process.Err())
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil, nil
	})
}

package doctor

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"sluice/discovery/locality"
)

// maxConnects is the number of concurrent connection attempts.
const maxConnects = 64

// connectAll connects to each address of a serving instance and returns the errors by
// address.
func connectAll(ctx context.Context, instances []Instance, timeout time.Duration) map[string]string {
	tried := make(map[string]bool)
	for _, i := range instances {
		if i.Unusable == "" && i.Serving() {
			tried[i.contact()] = true
		}
	}
	addresses := slices.Collect(maps.Keys(tried))
	silent := make(map[string]string)
	var mu sync.Mutex // guards silent
	_ = each(ctx, maxConnects, len(addresses), func(ctx context.Context, n int) error {
		if err := tryConnect(ctx, addresses[n], timeout); err != nil {
			mu.Lock()
			defer mu.Unlock()
			silent[addresses[n]] = err.Error()
		}
		return nil
	})
	return silent
}

func tryConnect(ctx context.Context, address string, timeout time.Duration) error {
	// Who runs doctor asks for it. It sends nothing.
	dialer := locality.NewDialer(locality.ByOperator, timeout)
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		return conn.Close()
	}
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return errors.New("no answer within " + timeout.String())
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err // without the address
	}
	return err
}

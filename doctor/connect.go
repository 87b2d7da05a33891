package doctor

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// connectsAtOnce is how many connections are tried at a time.
const connectsAtOnce = 64

// tryAll opens a connection to each address of an instance in service, once,
// and returns why not for those that it cannot reach.
func tryAll(ctx context.Context, instances []Instance, timeout time.Duration) map[string]string {
	tried := make(map[string]bool)
	silent := make(map[string]string)
	var mu sync.Mutex // guards silent
	var trying sync.WaitGroup
	slots := make(chan struct{}, connectsAtOnce)
	for _, i := range instances {
		address := i.address()
		if i.Unusable != "" || !i.Serving() || tried[address] {
			continue
		}
		tried[address] = true
		slots <- struct{}{}
		trying.Go(func() {
			defer func() { <-slots }()
			if err := try(ctx, address, timeout); err != nil {
				mu.Lock()
				defer mu.Unlock()
				silent[address] = err.Error()
			}
		})
	}
	trying.Wait()
	return silent
}

func try(ctx context.Context, address string, timeout time.Duration) error {
	dialer := net.Dialer{Timeout: timeout}
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

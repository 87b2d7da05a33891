package gateway

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"sluice/test/verify"
)

// A file with peers that could not be used is read again, also if its text is the one that was
// compared last: a program that wrote it a second time may have been in the midst of that.
func TestFileWithPeersIsReadAgainAfterAnError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "peers")
	write := func() { verify.NoError(t, os.WriteFile(path, []byte("127.0.0.1:1"), 0o600)) }
	write()
	ctx, cancel := context.WithCancel(t.Context())
	readings, results := make(chan struct{}), make(chan error)
	r := &registries{log: zerolog.Nop()}
	var watching sync.WaitGroup
	watching.Go(func() {
		r.watchPeers(ctx, path, func() error {
			select {
			case readings <- struct{}{}:
				return <-results
			case <-ctx.Done(): // what is written is not written at once
				return nil
			}
		})
	})
	<-readings
	write() // the same text, while it is read
	results <- errors.New("not a valid list")
	<-readings
	results <- nil
	cancel()
	watching.Wait()
}

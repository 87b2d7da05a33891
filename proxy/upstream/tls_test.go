package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// A peer with another certificate in each handshake does not fill the log.
func TestLinesAboutAPeerAreFewAndShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := balancer.NewPool("star", balancertest.Complete(balancer.Options{}))
		defer pool.Close()
		pool.Apply([]discovery.Instance{{Service: "star", ID: "a", Address: "127.0.0.1", Port: 1, Weight: 1}})
		var log bytes.Buffer
		p := peerTLS{peer: pool.Snapshot().All[0], log: zerolog.New(&log)}
		lines := func() int { return strings.Count(log.String(), "\n") }

		for range 3 {
			p.report(errors.New("certificate is valid for a.test"))
		}
		verify.Equal(t, lines(), 1, "lines with the same error")
		for i := range 1000 {
			p.report(fmt.Errorf("certificate is valid for %d.test, %s", i, strings.Repeat("é", 50_000)))
		}
		verify.Equal(t, lines(), maxLines, "lines of a minute")
		verify.That(t, log.Len() < maxLines*1000, "%d lines have %d bytes", lines(), log.Len())
		verify.That(t, len(p.logged) <= maxError, "%d bytes are kept of an error, want %d", len(p.logged), maxError)

		time.Sleep(failureEvery)
		for i := range 1000 {
			p.report(fmt.Errorf("certificate is valid for %d.test", i))
		}
		verify.Equal(t, lines(), 2*maxLines, "lines of two minutes")
	})
}

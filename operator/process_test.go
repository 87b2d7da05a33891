package operator

import (
	"io"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"sluice/observe/events"
	"sluice/observe/logs"
	"sluice/test/verify"
)

// An order about the level of the log that comes beside a reload replaces the level of before or of
// after it: it never stands as one that the next reload without a change would end.
func TestLogLevelBesideAReload(t *testing.T) {
	t.Parallel()
	var owner Ownership
	owner.Set(true)
	p := NewProcess(&owner, logs.New(io.Discard, zerolog.InfoLevel, "json"), events.New())
	for range 2000 {
		p.Configure(zerolog.InfoLevel, "json")
		verify.NoError(t, p.SetLogLevel("", ""))
		var reload sync.WaitGroup
		reload.Go(func() { p.Configure(zerolog.WarnLevel, "json") })
		verify.NoError(t, p.SetLogLevel("debug", ""))
		reload.Wait()
		order := p.State().LogLevel
		verify.Require(t, order == nil || order.Replaces == "warn", "the order %+v", order)
	}
}

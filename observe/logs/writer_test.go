package logs

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/test/subprocess"
	"sluice/test/verify"
)

func TestLogFollowsItsSettings(t *testing.T) {
	var out subprocess.Output
	w := New(&out, zerolog.WarnLevel, "auto")
	log := w.Logger()
	log.Info().Msg("one")
	log.Warn().Msg("two")
	w.Set(zerolog.DebugLevel, "console")
	log.Debug().Str("key", "value").Msg("three")
	log.Debug().Msg("an id:\n\x1b[2J")
	log.Debug().Msg("star-\u202e1 is healthy")
	w.Set(zerolog.ErrorLevel, "auto")
	log.Warn().Msg("four")
	got := out.String()
	for _, text := range []string{`"message":"two"}`, "DBG three key=value", `"an id:\n\x1b[2J"`, `"star-\u202e1 is healthy"`} {
		verify.That(t, strings.Contains(got, text), "%q is missing in\n%s", text, got)
	}
	for _, text := range []string{"one", "four", "\x1b["} {
		verify.That(t, !strings.Contains(got, text), "%q is in\n%s", text, got)
	}
}

// stoppable is an output that takes lines when it is told to.
type stoppable struct {
	subprocess.Output
	goOn chan struct{}
}

func (s *stoppable) Write(line []byte) (int, error) {
	<-s.goOn
	return s.Output.Write(line)
}

func TestBlockedOutputHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := stoppable{goOn: make(chan struct{})}
		log := New(&out, zerolog.InfoLevel, "auto").Logger()
		begin := time.Now()
		for _, text := range []string{"one", "two", "three"} {
			log.Info().Msg(text)
		}
		verify.Equal(t, time.Since(begin), blockedAfter, "the wait")
		close(out.goOn)
		synctest.Wait()
		log.Info().Msg("four")
		got := out.String()
		for _, text := range []string{`"message":"one"`, `"lines":2,`, `"message":"four"`} {
			verify.Contains(t, got, text, "the log")
		}
		verify.That(t, !strings.Contains(got, "two") && !strings.Contains(got, "three"), "lost lines are in\n%s", got)
	})
}

// A clock that is set back makes nobody wait longer for an output that is blocked.
func TestBlockedOutputWithAClockThatIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := stoppable{goOn: make(chan struct{})}
		w := New(&out, zerolog.InfoLevel, "auto")
		log := w.Logger()
		log.Info().Msg("one")
		w.out.began.Store(time.Now().Add(time.Hour).UnixNano())
		begin := time.Now()
		log.Info().Msg("two")
		verify.Equal(t, time.Since(begin), blockedAfter, "the wait")
		close(out.goOn)
		synctest.Wait()
	})
}

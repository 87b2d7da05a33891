package logs

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"sluice/test/subprocess"
	"sluice/test/verify"
)

func TestLogFollowsItsSettings(t *testing.T) {
	var out subprocess.Output
	w := New(&out, zerolog.WarnLevel, false)
	log := w.Logger()
	log.Info().Msg("one")
	log.Warn().Msg("two")
	w.Set(zerolog.DebugLevel, true)
	log.Debug().Str("key", "value").Msg("three")
	log.Debug().Msg("an id:\n\x1b[2J")
	w.Set(zerolog.ErrorLevel, false)
	log.Warn().Msg("four")
	got := out.String()
	for _, text := range []string{`"message":"two"}`, "DBG three key=value", `"an id:\n\x1b[2J"`} {
		verify.That(t, strings.Contains(got, text), "%q is missing in\n%s", text, got)
	}
	for _, text := range []string{"one", "four", "\x1b["} {
		verify.That(t, !strings.Contains(got, text), "%q is in\n%s", text, got)
	}
}

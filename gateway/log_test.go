package gateway

import (
	"strings"
	"testing"

	"sluice/config"
	"sluice/test/subprocess"
)

func TestLogFollowsItsSettings(t *testing.T) {
	var out subprocess.Output
	w := newLogWriter(&out, config.Log{Level: "warn", Format: "json"})
	log := w.logger()
	log.Info().Msg("one")
	log.Warn().Msg("two")
	w.set(config.Log{Level: "debug", Format: "console"})
	log.Debug().Str("key", "value").Msg("three")
	w.set(config.Log{Level: "error", Format: "json"})
	log.Warn().Msg("four")
	got := out.String()
	for _, text := range []string{`"message":"two"}`, "DBG three key=value"} {
		if !strings.Contains(got, text) {
			t.Errorf("%q is missing in\n%s", text, got)
		}
	}
	for _, text := range []string{"one", "four", "\x1b["} {
		if strings.Contains(got, text) {
			t.Errorf("%q is in\n%s", text, got)
		}
	}
}

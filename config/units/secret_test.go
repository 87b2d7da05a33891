package units

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v3"

	"sluice/test/verify"
)

// printed returns v in every form in which something prints, logs or encodes values.
func printed(t *testing.T, v any) string {
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	fmt.Fprint(&b, v)
	fmt.Fprintln(&b, v)
	for _, encode := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		b.Write(verify.Result(encode(v)).Must(t))
	}
	log := zerolog.New(&b)
	log.Info().Interface("v", v).Any("w", v).Msg(fmt.Sprint(v))
	if text, ok := v.(fmt.Stringer); ok {
		log.Info().Stringer("v", text).Send()
		b.Write(verify.Result(xml.Marshal(v)).Must(t))
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("v", "v", v)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("v", "v", v)
	return b.String()
}

// Neither the value nor what has it in a field, exported or not, shows the text.
func TestNothingShowsASecret(t *testing.T) {
	secret, location := NewSecret("s3cret"), NewLocation("https://us3r:s3cret@host/path?key=s3cret")
	type inner struct{ secret Secret }
	for _, v := range []any{
		secret, &secret, []Secret{secret}, map[string]Secret{"a": secret}, struct{ Secret Secret }{secret}, struct{ secret Secret }{secret}, struct{ inner inner }{inner{secret}},
		location, &location, []Location{location}, map[Location]int{location: 1}, struct{ Location *Location }{&location}, struct{ location Location }{location}, struct{ any any }{location},
	} {
		text := printed(t, v)
		for _, part := range []string{"s3cret", "us3r", fmt.Sprintf("%x", "s3cret"), fmt.Sprintf("%X", "s3cret")} {
			verify.That(t, !strings.Contains(text, part), "%T shows %s: %s", v, part, text)
		}
	}
	verify.That(t, secret.Reveal() == "s3cret" && location.Reveal() == "https://us3r:s3cret@host/path?key=s3cret", "revealed: %q, %q", secret.Reveal(), location.Reveal())
	verify.That(t, secret == NewSecret("s3cret") && secret != NewSecret("other") && location == NewLocation(location.Reveal()), "they cannot be compared")
	verify.That(t, NewSecret("") == Secret{} && NewLocation("").IsZero() && fmt.Sprintf("%s %q %#v", Secret{}, Location{}, Secret{}) == ` "" ""`, "an empty text")
}

func TestALocationShowsWhereItLeads(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		"/":                          "/",
		"/path/a@b":                  "/path/a@b",
		"/path?":                     "/path?",
		"/path?a=b#c?d":              "/path?***",
		"http://host/path/@me":       "http://host/path/@me",
		"http://host#s3cret":         "http://host#***",
		"http://host?s3cret":         "http://host?***",
		"http://s3cret@host":         "http://***@host",
		"http://u:s3cret@host/p?q":   "http://***@host/p?***",
		"u:s3cret@host:8500":         "***@host:8500",
		"host:8500":                  "host:8500",
		"unix:///run/consul.sock":    "unix:///run/consul.sock",
		"http://u:a/s3cret@host/p":   "http://***@host/p",
		"http://u:%zz/s3cret@host/p": "http://***@host/p",
	} {
		verify.Equal(t, NewLocation(text).String(), want, "%q", text)
	}
}

// Errors of net/http have the whole URL.
func TestALocationMasksItselfInTexts(t *testing.T) {
	at := NewLocation("http://127.0.0.1:0/path?key=s3cret")
	_, err := (&http.Client{Transport: refusing{}}).Get(at.Reveal())
	verify.That(t, strings.Contains(err.Error(), "s3cret"), "the error: %v", err)
	verify.Equal(t, at.MaskIn(err.Error()), `Get "http://127.0.0.1:0/path?***": unexpected EOF`, "masked")
	verify.Equal(t, NewLocation("http://u:s3cret@host/").MaskIn("parse u:s3cret@host"), "parse ***@host", "user information")
	verify.Equal(t, NewLocation("http://host/").MaskIn("status 500"), "status 500", "nothing to mask")
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }

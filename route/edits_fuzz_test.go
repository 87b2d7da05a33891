package route

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"sluice/test/verify"
)

// FuzzPathEdits checks that an edited path stays where the edits put it, for a server that
// decodes and cleans it as well as for one that does neither.
func FuzzPathEdits(f *testing.F) {
	f.Add("/api", "/v1", false, "/api/x")
	f.Add("/api", "/v1", true, "/apix/../y")
	f.Add("/a/b", "", false, "/a%2fb/%2e%2e/c")
	f.Add("", "/v1", false, `/x\..;a/..`)
	f.Fuzz(func(t *testing.T, strip, add string, stripString bool, target string) {
		e, err := NewPathEdits(PathOptions{Strip: strip, Add: add, StripString: stripString})
		if err != nil || !strings.HasPrefix(target, "/") || strings.ContainsAny(target, "?#") {
			t.Skip()
		}
		got, stripped, err := e.Append(nil, []byte(target), nil, nil)
		if err != nil {
			verify.That(t, len(got) == 0 && !stripped, "%q with an error", got)
			return
		}
		// By hand: the text changes at its start only.
		rest := strings.TrimPrefix(string(got), e.add)
		verify.Require(t, strings.HasPrefix(string(got), e.add) && strings.HasPrefix(rest, "/"), "got %q, which does not begin with %q", got, e.add)
		want := target
		if stripped {
			if want = strings.TrimPrefix(target, e.strip); !strings.HasPrefix(want, "/") {
				want = "/" + want
			}
		}
		verify.Equal(t, rest, want, "rest")
		// No reading leads out of the prefix.
		readings := []string{string(got)}
		if decoded, err := url.PathUnescape(string(got)); err == nil {
			readings = append(readings, decoded, strings.ReplaceAll(decoded, `\`, "/"))
		}
		for _, reading := range readings {
			clean := path.Clean(reading)
			verify.That(t, e.add == "" || clean == e.add || strings.HasPrefix(clean, e.add+"/"), "%q can be read as %q, outside of %q", got, clean, e.add)
		}
		// What was not stripped does not have the prefix for a server that decodes.
		if decoded, err := url.PathUnescape(target); err == nil && !stripped && e.strip != "" {
			clean := path.Clean(decoded)
			verify.That(t, clean != e.strip && !strings.HasPrefix(clean, e.strip+"/"), "%q was not stripped, and can be read as %q", target, clean)
		}
	})
}

package statuses

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestParse(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := s.String(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	f("200", "200")
	f("200-299", "200-299")
	f("2xx", "200-299")
	f("2xx,3xx", "200-399")
	f(" 304 , 204 ", "204,304")
	f("200,201,203,202", "200-203")
	f("599", "599")
	f("200-599", "200-599")
	f("503,503,503-503", "503")
	s, _ := Parse("2xx,404")
	for status, want := range map[int]bool{-1: false, 0: false, 100: false, 199: false, 200: true, 299: true, 300: false, 404: true, 599: false, 600: false, 1200: false} {
		verify.Equal(t, s.Has(status), want, "has %d", status)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", ",", "200,", "199", "600", "100", "1xx", "6xx", "xx", "2x", "2xxx", "200-", "-200", "299-200", "200-299-300",
		"0200", "+200", "2e2", "200 299", "ok", "２００",
	} {
		if s, err := Parse(text); err == nil {
			t.Errorf("%q is %v", text, s)
		} else if !strings.Contains(err.Error(), `"`) {
			t.Errorf("%q: %v does not quote it", text, err)
		}
	}
}

// The formatted text of an accepted set parses to the same set, which has only statuses of final
// responses.
func FuzzParse(f *testing.F) {
	f.Add("200-299,404")
	f.Add("2xx, 5xx ,301-302")
	f.Add("599-200")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		verify.That(t, err == nil && again == s, "%q is %q, and that is %q (%v)", text, s, again, err)
		verify.That(t, s != (Set{}), "%q is nothing", text)
	})
}

package route

import (
	"sluice/test/verify"
	"testing"
)

func TestHashKeys(t *testing.T) {
	f := func(text string, want HashKey) {
		t.Helper()
		got, err := ParseHashKey(text)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
			return
		}
		again, err := ParseHashKey(got.String())
		verify.That(t, err == nil && again == got, "%q: %q is read as %+v, %v", text, got, again, err)
	}
	f("client_address", HashKey{HashClientAddress, ""})
	f("path", HashKey{HashPath, ""})
	f("header X-User", HashKey{HashHeader, "x-user"})
	f("cookie SID", HashKey{HashCookie, "SID"})
	f("query user[id]", HashKey{HashQuery, "user[id]"})
	for _, text := range []string{
		"", "nope", "path x", "client_address x", "header", "header ", "header a b", "header a:", "cookie", "cookie a=b", "cookie a;",
		"query", "query ", "query a=", "query a&b", "query a#", "Header a", "header X-Ü",
	} {
		k, err := ParseHashKey(text)
		verify.That(t, err != nil, "%q: got %+v, want an error", text, k)
	}
}

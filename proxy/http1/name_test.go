package http1

import (
	"strings"
	"testing"
)

func TestLookUpName(t *testing.T) {
	seen := map[Name]bool{}
	for length, names := range namesByLength {
		for _, known := range names {
			if len(known.lower) != length || known.lower != strings.ToLower(known.lower) {
				t.Errorf("%q is among the names of %d octets", known.lower, length)
			}
			for _, name := range []string{known.lower, strings.ToUpper(known.lower), strings.ToUpper(known.lower[:1]) + known.lower[1:]} {
				if got := NameOf([]byte(name)); got != known.name {
					t.Errorf("%s: got %d, want %d", name, got, known.name)
				}
			}
			if strings.Contains(known.lower, "-") {
				for _, mark := range []string{"_", ".", "~", "+"} {
					name := []byte(strings.Replace(known.lower, "-", mark, 1))
					if NameOf(name) != NameMarked || NameLike(name) != known.name || !Alike(name, known.lower) || Alike([]byte(known.lower), string(name)) {
						t.Errorf("%s: got %d, like %d", name, NameOf(name), NameLike(name))
					}
				}
			}
			for _, name := range []string{known.lower + "x", "x" + known.lower, known.lower[1:], strings.Replace(known.lower, "e", "x", 1)} {
				if got := NameOf([]byte(name)); got == known.name && name != known.lower {
					t.Errorf("%s: taken for %s", name, known.lower)
				}
			}
			seen[known.name] = true
		}
	}
	for name := NameOther + 1; name < NameMarked; name++ {
		if !seen[name] && name != NameXSluice {
			t.Errorf("name %d cannot be found", name)
		}
	}
	for _, name := range []string{"", "x", strings.Repeat("x", 31), strings.Repeat("x", 32), strings.Repeat("x", 1000)} {
		if got := NameOf([]byte(name)); got != NameOther {
			t.Errorf("%q: got %d", name, got)
		}
	}
}

func TestNamesByPrefix(t *testing.T) {
	for name, want := range map[string]Name{
		"X-Forwarded-User": NameClaim, "x-forwarded-": NameClaim, "X-FORWARDED-" + strings.Repeat("a", 1000): NameClaim, "X-Forwarded-For-": NameClaim, "X-Forwarded": NameClaim,
		"X-Sluice-Attempts": NameXSluice, "x-sluice-x": NameXSluice, "X-Sluice-Mirror": NameXSluiceMirror, "X-Sluice-Mirrors": NameXSluice,
		"X-Original-URL": NameClaim, "X-SSL-Client-Cert": NameClaim, "SSL-Client-S-DN": NameClaim, "X-Client-Cert": NameClaim, "X-Auth-Request-Email": NameClaim,
		"X-Forwarde": NameOther, "X-Sluic": NameOther, "X-Sluice": NameOther, "SSL": NameOther, "s": NameOther, "x": NameOther, "X-": NameOther, "Y-Forwarded-For": NameOther,
		"X_Forwarded-User": NameMarked, "X-Forwarded-A.B": NameMarked,
	} {
		if got := NameOf([]byte(name)); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
	for name, want := range map[string]Name{
		"X_Forwarded.User": NameClaim, "X_FORWARDED_" + strings.Repeat("a_", 1000): NameClaim, "X.Sluice_A": NameXSluice, "x_y": NameOther, "REMOTE_USER": NameClaim, "a.": NameOther,
	} {
		if got := NameLike([]byte(name)); got != want {
			t.Errorf("%s: like %d, want %d", name, got, want)
		}
	}
}

func TestEqualFold(t *testing.T) {
	for _, test := range []struct {
		b, lower string
		want     bool
	}{
		{"", "", true}, {"chunked", "chunked", true}, {"CHUNKED", "chunked", true}, {"cHuNkEd", "chunked", true},
		{"chunke", "chunked", false}, {"chunkedd", "chunked", false}, {"chunkeD ", "chunked", false},
		{"chun\u212aed", "chunked", false}, {"clo\u017fe", "close", false}, // fold to k and s in Unicode
		{"a-b", "a-b", true}, {"a\rb", "a-b", false}, {"@", "`", false}, {"[", "{", false}, {"A\x0dB", "a-b", false},
		{"\x01", "!", false}, {"\x80", "\xa0", false},
	} {
		if got := EqualFold([]byte(test.b), test.lower); got != test.want {
			t.Errorf("%q, %q: got %v", test.b, test.lower, got)
		}
		if got := equalFold([]byte(test.b), []byte(test.lower)); got != test.want {
			t.Errorf("both folded: %q, %q: got %v", test.b, test.lower, got)
		}
	}
	// Only letters have a case.
	for a := range 256 {
		for b := range 256 {
			x, y := []byte{byte(a)}, []byte{byte(b)}
			want := a == b || a < 0x80 && b < 0x80 && strings.EqualFold(string(x), string(y))
			if got := equalFold(x, y); got != want {
				t.Errorf("%q, %q: got %v", x, y, got)
			}
			if isUpper := b >= 'A' && b <= 'Z'; !isUpper {
				if got := EqualFold(x, string(y)); got != want {
					t.Errorf("%q, %q: got %v", x, y, got)
				}
			}
		}
	}
}

// The sets of characters, against the words of the RFCs.
func TestCharacterSets(t *testing.T) {
	for c := range 256 {
		alphanumeric := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		for _, set := range []struct {
			name string
			bit  uint8
			want bool
		}{
			{"token", charToken, alphanumeric || c < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c))},
			{"value", charValue, c == '\t' || c >= ' ' && c != 0x7f},
			{"target", charTarget, c > ' ' && c != 0x7f && c != '#'},
			{"mark", charMark, c < 0x80 && strings.ContainsRune("!#$%&'*+.^_`|~", rune(c))},
			{"host", charHost, alphanumeric || c < 0x80 && strings.ContainsRune("-._~%!$&'()*+;=:[]", rune(c))},
		} {
			if got := chars[c]&set.bit != 0; got != set.want {
				t.Errorf("%q in %s: got %v", rune(c), set.name, got)
			}
			if got := consistsOf([]byte{byte(c)}, set.bit); got != set.want {
				t.Errorf("consistsOf %q in %s: got %v", rune(c), set.name, got)
			}
		}
	}
}

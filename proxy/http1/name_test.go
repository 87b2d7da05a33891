package http1

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestLookUpName(t *testing.T) {
	seen := map[Name]bool{}
	for length, names := range namesByLength {
		for _, known := range names {
			verify.That(t, len(known.lower) == length && known.lower == strings.ToLower(known.lower), "%q is among the names of %d octets", known.lower, length)
			for _, name := range []string{known.lower, strings.ToUpper(known.lower), strings.ToUpper(known.lower[:1]) + known.lower[1:]} {
				verify.Equal(t, NameOf([]byte(name)), known.name, "%s", name)
			}
			if strings.Contains(known.lower, "-") {
				for _, mark := range []string{"_", ".", "~", "+"} {
					name := []byte(strings.Replace(known.lower, "-", mark, 1))
					if NameOf(name) != NameMarked || NameLike(name) != known.name || !Alike(name, known.lower) || !Alike([]byte(known.lower), string(name)) {
						t.Errorf("%s: got %d, like %d", name, NameOf(name), NameLike(name))
					}
				}
			}
			for _, name := range []string{known.lower + "x", "x" + known.lower, known.lower[1:], strings.Replace(known.lower, "e", "x", 1)} {
				got := NameOf([]byte(name))
				verify.That(t, got != known.name || name == known.lower, "%s: taken for %s", name, known.lower)
			}
			seen[known.name] = true
		}
	}
	for name := NameOther + 1; name < NameMarked; name++ {
		verify.That(t, seen[name] || name == NameXSluice, "name %d cannot be found", name)
	}
	for _, name := range []string{"", "x", strings.Repeat("x", 31), strings.Repeat("x", 32), strings.Repeat("x", 1000)} {
		verify.Equal(t, NameOf([]byte(name)), NameOther, "%q", name)
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
		verify.Equal(t, NameOf([]byte(name)), want, "%s", name)
	}
	for name, want := range map[string]Name{
		"X_Forwarded.User": NameClaim, "X_FORWARDED_" + strings.Repeat("a_", 1000): NameClaim, "X.Sluice_A": NameXSluice, "x_y": NameOther, "REMOTE_USER": NameClaim, "a.": NameOther,
	} {
		verify.Equal(t, NameLike([]byte(name)), want, "%s: like", name)
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
		verify.Equal(t, EqualFold([]byte(test.b), test.lower), test.want, "%q, %q", test.b, test.lower)
		verify.Equal(t, equalFold([]byte(test.b), []byte(test.lower)), test.want, "both folded: %q, %q", test.b, test.lower)
	}
	// Only letters have a case.
	for a := range 256 {
		for b := range 256 {
			x, y := []byte{byte(a)}, []byte{byte(b)}
			want := a == b || a < 0x80 && b < 0x80 && strings.EqualFold(string(x), string(y))
			verify.Equal(t, equalFold(x, y), want, "%q, %q", x, y)
			if isUpper := b >= 'A' && b <= 'Z'; !isUpper {
				verify.Equal(t, EqualFold(x, string(y)), want, "%q, %q", x, y)
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

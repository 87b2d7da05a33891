package compression

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/test/verify"
)

// The order, fields that are repeated, and what the plainest reading of one field might leave open.
func TestChoose(t *testing.T) {
	for _, test := range []struct {
		fields string // separated by "|"
		order  string
		want   Encoding
	}{
		{"", "zstd br gzip", Identity},
		{"gzip, deflate, br, zstd", "zstd br gzip", Zstd},
		{"gzip, deflate, br, zstd", "gzip br", Gzip},
		{"gzip|br", "zstd br gzip", Brotli},
		{"gzip;q=0.5,br;q=0.501", "gzip br", Brotli},
		{"gzip;q=0, *", "gzip", Identity},
		{"*", "br gzip", Brotli},
		{"identity;q=0", "gzip", Identity}, // nothing else is accepted
		{"identity;q=0.5, gzip;q=0.5", "gzip", Gzip},
		{"gzip;q=0.5, *", "gzip", Identity},  // "*" is also identity
		{"gzip;q=0, gzip", "gzip", Identity}, // the first counts
		{"gzip", "", Identity},
	} {
		var a Accept
		for field := range strings.SplitSeq(test.fields, "|") {
			a.Add([]byte(field))
		}
		verify.Equal(t, a.Choose(order(t, test.order)), test.want, "Accept-Encoding %q, order %q", test.fields, test.order)
	}
}

func order(t testing.TB, names string) (order []Encoding) {
	t.Helper()
	for name := range strings.FieldsSeq(names) {
		e, ok := ParseEncoding(name)
		verify.Require(t, ok, "no encoding %q", name)
		order = append(order, e)
	}
	return order
}

func TestParseEncoding(t *testing.T) {
	for _, e := range Encodings {
		got, ok := ParseEncoding(e.String())
		verify.That(t, ok && got == e, "%s: %v, %v", e, got, ok)
	}
	for _, name := range []string{"", "identity", "deflate", "GZIP"} {
		e, ok := ParseEncoding(name)
		verify.That(t, !ok, "%q is %v", name, e)
	}
}

// referenceWeights reads Accept-Encoding in the plainest way.
func referenceWeights(value string) map[string]float64 {
	weights := make(map[string]float64)
	for element := range strings.SplitSeq(value, ",") {
		name, parameter, weighted := strings.Cut(element, ";")
		name = strings.ToLower(strings.Trim(name, " \t"))
		if name == "x-gzip" {
			name = "gzip"
		}
		q := 1.0
		if weighted {
			parameter = strings.Trim(parameter, " \t")
			if len(parameter) < 3 || !strings.EqualFold(parameter[:2], "q=") {
				continue
			}
			digits := parameter[2:]
			var err error
			if q, err = strconv.ParseFloat(digits, 64); err != nil || q > 1 || len(digits) > 5 ||
				strings.Trim(digits, "0123456789.") != "" || strings.Index(digits, ".") > 1 || digits[0] == '.' || digits[0] > '1' ||
				!strings.Contains(digits, ".") && len(digits) > 1 {
				continue
			}
		}
		if _, twice := weights[name]; !twice {
			weights[name] = q
		}
	}
	return weights
}

func FuzzChoose(f *testing.F) {
	for _, seed := range []string{
		"gzip, deflate, br, zstd", "gzip;q=0.5,*;q=0.1", "identity;q=0,*", "x-gzip;q=1.000", "br;q=0.", "GZIP", "gzip ; q=0.5 , br ;\tq=0.4", "gzip;Q=0.5",
		"gzip;q=0", "gzip;q=0.000", "gzip;q=0.001", "*;q=0", "*;q=0.1, gzip;q=0.2", "identity", "identity, gzip;q=0.5", "identity;q=0.5, gzip", "identity;q=0, gzip;q=0.1",
		"deflate, compress", "gzip;q=2", "gzip;q=1.001", "gzip;q=0.0001", "gzip;q=.5", "gzip;q=0,5", "gzip;q=0x5", "gzip;q", "gzip;q=", "gzip;", "gzip;level=1", "gzip, gzip;q=0",
		",, gzip,", "gzipp, zip", "\xff\x00", "gzip;q=1.0, br;q=0.9", "gzip;q=0.1234", "gzip;q=0.x5", "br;\tq=0.4",
	} {
		for first := range byte(3) {
			f.Add(seed, first)
		}
	}
	f.Fuzz(func(t *testing.T, value string, first byte) {
		order := slices.Clone(Encodings)
		order[0], order[int(first)%3] = order[int(first)%3], order[0]
		var a Accept
		a.Add([]byte(value))
		weights := referenceWeights(value)
		weight := func(e Encoding) float64 {
			if q, given := weights[e.String()]; given {
				return q
			}
			if q, given := weights["*"]; given {
				return q
			}
			return 0
		}
		want := Identity
		for _, e := range order {
			if q := weight(e); q > 0 && (want == Identity || q > weight(want)) {
				want = e
			}
		}
		if weight(Identity) > weight(want) {
			want = Identity
		}
		verify.Equal(t, a.Choose(order), want, "Accept-Encoding %q, order %v", value, order)
	})
}

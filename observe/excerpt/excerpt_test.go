package excerpt

import (
	"testing"

	"sluice/test/verify"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want string
	}{
		{"", 3, ""},
		{"whole", 5, "whole"},
		{"longer", 5, "lo…"},
		{"longer", 3, "…"},
		{"aé longer", 5, "a…"},         // the two bytes of é would be divided
		{"\xff", 3, "\xff"},            // as it was
		{"\xff\xfe longer", 6, " …"},   // only a start becomes valid
		{"ééé", 6, "ééé"},              // bytes count
		{"ééé and more", 7, "éé…"},     // and they count with the mark
		{"\x00 and more", 5, "\x00 …"}, // control characters are the matter of who writes
	} {
		verify.Equal(t, Of(c.text, c.most), c.want, "%q, at most %d bytes", c.text, c.most)
	}
}

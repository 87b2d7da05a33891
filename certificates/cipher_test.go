package certificates

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/verify"
)

// writeKey writes a key file with 32 times that letter.
func writeKey(t *testing.T, letter string) string {
	t.Helper()
	encoded := map[string]string{
		"a": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=", "b": "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=",
	}
	name := filepath.Join(t.TempDir(), letter)
	verify.NoError(t, os.WriteFile(name, []byte(encoded[letter]+"\n"), 0o600))
	return name
}

func TestCipher(t *testing.T) {
	readCipher := func(files ...string) *Cipher {
		return verify.Result(ReadCipher(files)).Must(t)
	}
	a, b := writeKey(t, "a"), writeKey(t, "b")
	none, onlyA, onlyB, bThenA := readCipher(), readCipher(a), readCipher(b), readCipher(b, a)
	secret := []byte("-----BEGIN PRIVATE KEY-----")
	sealed := onlyA.Seal("x/y.key", secret)
	again := onlyA.Seal("x/y.key", secret)
	verify.That(t, !bytes.Equal(sealed, again) && !bytes.Contains(sealed, secret[:10]), "got %q and %q", sealed, again)
	changed := bytes.Clone(sealed)
	changed[len(changed)-1]++
	for what, test := range map[string]struct {
		c     *Cipher
		name  string
		value []byte
		old   bool
		err   bool
	}{
		"the key":             {onlyA, "x/y.key", sealed, false, false},
		"an old key":          {bThenA, "x/y.key", sealed, true, false},
		"another key":         {onlyB, "x/y.key", sealed, false, true},
		"no key":              {none, "x/y.key", sealed, false, true},
		"another name":        {onlyA, "x/z.key", sealed, false, true},
		"a changed value":     {onlyA, "x/y.key", changed, false, true},
		"a part":              {onlyA, "x/y.key", sealed[:len(sealedPrefix)], false, true},
		"plain text":          {onlyA, "x/y.key", secret, true, false},
		"plain text, no key":  {none, "x/y.key", secret, false, false},
		"plain text, no name": {none, "", none.Seal("", secret), false, false},
	} {
		value, old, err := test.c.Open(test.name, test.value)
		verify.That(t, old == test.old && errors.Is(err, ErrSealed) == test.err && (err == nil) == bytes.Equal(value, secret), "%s: got %q, %v, %v", what, value, old, err)
	}
	value, _, err := onlyA.Open("n", onlyA.Seal("n", nil))
	verify.That(t, err == nil && len(value) == 0, "an empty value: %q, %v", value, err)
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	good := writeKey(t, "a")
	for _, text := range []string{"", "YWFh", "no base64", strings.Repeat("YWFh", 1000), "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYQ=="} {
		bad := filepath.Join(t.TempDir(), "bad")
		verify.NoError(t, os.WriteFile(bad, []byte(text), 0o600))
		_, err := ReadCipher([]string{good, bad})
		verify.That(t, err != nil && strings.Contains(err.Error(), bad+": want a key of 32 bytes"), "%.50q: %v", text, err)
	}
	_, err := ReadCipher([]string{good + "x"})
	verify.That(t, err != nil && strings.Count(err.Error(), good) == 1, "a missing file: %v", err)
}

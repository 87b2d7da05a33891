package cli

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"sluice/test/verify"
)

// hashPassword runs the command with what is on standard input.
func hashPassword(input string, args ...string) (stdout string, err error) {
	root := NewRoot()
	var out, errs bytes.Buffer
	root.SetIn(strings.NewReader(input))
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append([]string{"hash-password"}, args...))
	err = root.Execute()
	return out.String(), err
}

func TestHashPassword(t *testing.T) {
	line := verify.Result(hashPassword("open sesame\r\nmore", "ann")).Must(t)
	hash, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "ann:")
	verify.That(t, ok && bcrypt.CompareHashAndPassword([]byte(hash), []byte("open sesame")) == nil, "%q is not of the password", line)
	users := writeFile(t, "users", line)
	path := writeFile(t, "sluice.yaml", "services: { star: { consul: {} } }\n"+
		"routes: [{ service: star, basic_auth: { users_file: "+users+" } }]\n")
	prints(t, exitOK, path+" is right: listeners 1, services 1, routes 1\n", "check", path)

	for input, want := range map[string]string{"": "it is empty", "\n": "it is empty", strings.Repeat("a", 73): "longer than 72 bytes"} {
		_, err := hashPassword(input, "ann")
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%v, want %s", err, want)
	}
	for _, user := range []string{"", "ann:b", "#ann", " ann", "ann\nb"} {
		_, err := hashPassword("a", user)
		verify.That(t, err != nil && strings.Contains(err.Error(), "without a colon"), "%q: %v", user, err)
	}
}

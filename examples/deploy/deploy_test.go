package deploy

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/config"
	"sluice/test/verify"
)

// Each file has one configuration of sluice, which is valid.
func TestConfigurations(t *testing.T) {
	for _, c := range []struct {
		file string
		path []string
	}{
		{"compose.yaml", []string{"configs", "sluice", "content"}},
		{"kubernetes.yaml", []string{"data", "sluice.yaml"}},
	} {
		file := verify.Result(os.Open(c.file)).Must(t)
		defer file.Close()
		found := 0
		for documents := yaml.NewDecoder(file); ; {
			var document any
			if err := documents.Decode(&document); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", c.file, err)
			}
			for _, key := range c.path {
				keys, _ := document.(map[string]any)
				document = keys[key]
			}
			if text, ok := document.(string); ok {
				found++
				check(t, c.file, text)
			}
		}
		verify.That(t, found == 1, "%s has %d configurations of sluice", c.file, found)
	}
}

// The configuration in the job of Nomad is valid.
func TestNomad(t *testing.T) {
	job := verify.Result(os.ReadFile("sluice.nomad.hcl")).Must(t)
	_, text, _ := strings.Cut(string(job), "<<EOT\n")
	text, _, found := strings.Cut(text, "\nEOT\n")
	verify.Require(t, found, "the job has no template")
	check(t, "sluice.nomad.hcl", text)
}

func check(t *testing.T, from, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	token := filepath.Join(t.TempDir(), "token")
	text = strings.NewReplacer("/etc/sluice-token/token", token, "/run/secrets/token", token).Replace(text)
	verify.NoError(t, errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(token, []byte("t"), 0o600)))
	in := config.Input{File: file, Getenv: func(string) string { return "" }}
	read, err := in.Read()
	verify.Require(t, err == nil, "%s: %v", from, err)
	_, err = in.Build([]config.Source{in.FileSource(read)})
	verify.That(t, err == nil, "%s: %v", from, err)
}

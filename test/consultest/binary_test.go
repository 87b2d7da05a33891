package consultest

import (
	"os"
	"path/filepath"
	"sluice/test/verify"
	"strings"
	"testing"
)

func TestBinaryPrefersTheEnvironment(t *testing.T) {
	self := verify.Result(os.Executable()).Must(t)
	t.Setenv(EnvBinary, self)
	got, err := Binary(t.Context(), nil)
	verify.That(t, err == nil && got == self, "Binary = %q, %v; want %q", got, err, self)
	t.Setenv(EnvBinary, filepath.Join(t.TempDir(), "missing"))
	got, err = Binary(t.Context(), nil)
	verify.That(t, err != nil && strings.Contains(err.Error(), EnvBinary), "a missing program: Binary = %q, %v; want an error that names %s", got, err, EnvBinary)
}

func TestConsulIsPinned(t *testing.T) {
	version, err := consul.Version(t.Context())
	verify.That(t, err == nil && strings.HasPrefix(version, "v1."), "version = %q, %v", version, err)
}

package consultest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBinaryPrefersTheEnvironment(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvBinary, self)
	if got, err := Binary(t.Context(), nil); err != nil || got != self {
		t.Errorf("Binary = %q, %v; want %q", got, err, self)
	}
	t.Setenv(EnvBinary, filepath.Join(t.TempDir(), "missing"))
	if got, err := Binary(t.Context(), nil); err == nil || !strings.Contains(err.Error(), EnvBinary) {
		t.Errorf("a missing program: Binary = %q, %v; want an error that names %s", got, err, EnvBinary)
	}
}

func TestConsulIsPinned(t *testing.T) {
	version, err := consul.Version(t.Context())
	if err != nil || !strings.HasPrefix(version, "v1.") {
		t.Errorf("version = %q, %v", version, err)
	}
}

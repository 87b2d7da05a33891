log_level = "warn"

# By default only SIGINT ends it.
kill_signal = "SIGTERM"

consul {
  address = "{{.Consul.HTTP}}"

  # By default it gives up after twelve attempts, and waits up to a minute
  # between two of them.
  retry {
    attempts    = 0
    backoff     = "250ms"
    max_backoff = "1s"
  }
}

template {
  source      = "{{.Dir}}/upstream.ctmpl"
  destination = "{{.Dir}}/upstream.conf"
  command     = ["{{.Nginx}}", "-e", "stderr", "-p", "{{.Dir}}", "-c", "{{.Dir}}/nginx.conf", "-s", "reload"]
}

# An app that asks sluice for its route by a tag: nomad job run app.nomad.hcl
job "shop" {
  group "shop" {
    count = 2

    network {
      port "http" {}
    }

    service {
      name     = "shop"
      provider = "consul"
      port     = "http"
      tags     = ["sluice.route=shop.example.com/ name=shop timeout=10s"]

      check {
        type     = "http"
        path     = "/"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "shop" {
      driver         = "docker"
      shutdown_delay = "2s" # between the end of its registration and SIGTERM: sluice sends it no new requests

      config {
        image = "hashicorp/http-echo:1.0"
        args  = ["-listen=:${NOMAD_PORT_http}", "-text=shop"]
        ports = ["http"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}

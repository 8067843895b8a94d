module vpn-operator-e2e-images

go 1.24

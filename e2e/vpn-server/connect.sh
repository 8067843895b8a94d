#!/bin/sh
mkdir -p "/tmp/sessions/$common_name"
touch "/tmp/sessions/$common_name/$trusted_ip:$trusted_port"

# One image for plant, safety controller and control server; which of them a container is, its command says.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt build hatchling
COPY pyproject.toml README.md LICENSE ./
COPY facility facility
COPY dose dose
COPY channels channels
COPY journal journal
COPY interlocks interlocks
COPY ioc_sim ioc_sim
COPY control control
COPY records records
COPY rig rig
COPY console console
COPY configs configs
RUN python -m build --wheel --no-isolation --outdir /wheel

FROM python:3.11-slim-bookworm
COPY constraints.txt /opt/ionctl/
COPY --from=build /wheel /opt/ionctl/wheel
RUN pip install --no-cache-dir --only-binary :all: -c /opt/ionctl/constraints.txt /opt/ionctl/wheel/*.whl \
    && useradd --create-home ionctl \
    && mkdir /data && chown ionctl /data
COPY docker/service.py /opt/ionctl/service.py
USER ionctl
WORKDIR /data
ENV IONCTL_HOME=/data IONCTL_KERNEL_CACHE=/data/cache PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "/opt/ionctl/service.py"]
